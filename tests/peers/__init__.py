"""Real peers for tests: each runs for as long as the test that asked for it."""
