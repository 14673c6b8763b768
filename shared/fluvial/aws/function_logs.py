"""Logs of a Lambda function: Fluvial's own lines, from the standard library's loggers, in Powertools' JSON."""

import logging

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers


def function_logger(service: str) -> Logger:
    """A function's logger; `fluvial.*` logs as it does, with the correlation id of the request at hand."""
    logger = Logger(service=service)
    package = logging.getLogger("fluvial")
    copy_config_to_registered_loggers(source_logger=logger, include={package.name})
    package.propagate = False  # Lambda's own handler, at the root, would print each line again
    return logger
