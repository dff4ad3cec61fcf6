"""The command ``audiohook``: a module for each kind of user."""

from audiohook.cli import notify, operate, service, simulate, support
from audiohook.cli.app import app, main

__all__ = ["app", "main", "notify", "operate", "service", "simulate", "support"]
