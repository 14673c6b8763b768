"""What reads a stream: heads, pages, cold segments and names."""
