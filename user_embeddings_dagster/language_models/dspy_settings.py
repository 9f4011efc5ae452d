"""DSPy without its caches and histories: nothing of a prompt or an answer is left on disk or held (C27)."""

from user_embeddings_dagster.settings import prepare_environment


def quiet_dspy() -> None:
    """DSPy keeps no cache (on disk or in memory) and no history; call it before every use, from any thread.

    `dspy.configure` is reserved to the first thread that calls it, so history is switched off in the settings that
    it would write to. Raises RuntimeError inside a `dspy.context` that was opened before: its settings hide ours.
    """
    prepare_environment()
    import dspy
    from dspy.dsp.utils.settings import main_thread_config

    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    main_thread_config["disable_history"] = True
    if not dspy.settings.disable_history:
        raise RuntimeError("call quiet_dspy before dspy.context, which has a copy of the settings")
