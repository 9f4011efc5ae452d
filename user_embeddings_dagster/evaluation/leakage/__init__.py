"""What the trained encoders and their vectors give away about people: attacks, beside what chance would find (C21)."""
