"""The console logger: one short line per message, for people who watch a run in a terminal."""

import logging
import sys
import time

import dagster as dg

STARTED = time.monotonic()


class ShortLines(logging.Formatter):
    """`[mm:ss] asset[partition]: message`, without the run ids that Dagster's own format repeats."""

    def format(self, record: logging.LogRecord) -> str:
        """One line for one record."""
        meta = getattr(record, "dagster_meta", {})
        message = meta.get("orig_message", record.getMessage())
        minutes, seconds = divmod(int(time.monotonic() - STARTED), 60)
        return f"[{minutes:02}:{seconds:02}] {meta.get('step_key') or meta.get('job_name', '')}: {message}"


@dg.logger(
    {"log_level": dg.Field(str, default_value="INFO", is_required=False)},
    description="Short lines on stderr.",
)
def console(init_context: dg.InitLoggerContext) -> logging.Logger:
    """A logger at the configured level."""
    logger = logging.getLogger("user_embeddings.console")
    logger.handlers.clear()
    logger.propagate = False
    logger.setLevel(init_context.logger_config["log_level"])
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ShortLines())
    logger.addHandler(handler)
    return logger
