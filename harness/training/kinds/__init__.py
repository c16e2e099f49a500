"""What a task's kind decides while it trains, one file a kind."""
