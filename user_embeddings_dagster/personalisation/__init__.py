"""What the personalised LLM is asked and how its answers are judged: insight tasks, their validation, judges."""
