"""A PostgreSQL of our own below `data_dir`, so that a demo, a test or a trial needs nothing installed."""
