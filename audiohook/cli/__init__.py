"""The command ``audiohook``: a module for each kind of user."""

from audiohook.cli import operate, service, simulate
from audiohook.cli.app import app, main

__all__ = ["app", "main", "operate", "service", "simulate"]
