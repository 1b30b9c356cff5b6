"""The networks of the paper's comparison (table 2) and ablation (table 3), written from their papers."""
