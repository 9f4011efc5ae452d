"""Retention: how long each stage keeps what it holds, and the purge that removes what is past it (C16)."""
