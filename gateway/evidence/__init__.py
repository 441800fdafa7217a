"""What a hospital asks before it signs, each document made from the code and the configuration."""
