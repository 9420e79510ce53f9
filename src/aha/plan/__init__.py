"""What a run costs: time, money and energy."""
