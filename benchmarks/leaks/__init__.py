"""F1: canaries of every kind in every string field of every export format, looked for in all that the platform wrote.

    python -m benchmarks.leaks [--each 50] [--folder F] [--quick] [--unmasked]

kinds          what is planted: identifiers and secrets with valid check digits, by their public specifications
planting       which canaries stand in which field, in batches
reddit, telegram, dfusion, chatgpt   the export formats, every string field of them
echo_server    a language model that repeats its prompt, or obeys what the prompt says
lineage        the whole graph through Dagster, in a process of its own
search, stores where canaries are found, how they may be written, and where they may lawfully be
"""
