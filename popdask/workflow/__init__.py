"""Jobs planned and run: stages, what they cost, their records, and what operators ask of them."""
