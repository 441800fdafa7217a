"""A PostgreSQL of our own below `data_dir`, so that a demo, a test or a trial needs nothing installed."""

from gateway.embedded.server import Server, running_url, serve, start

__all__ = ["Server", "running_url", "serve", "start"]
