"""How torch differentiates a circuit: the rule of the operators, and the routes by which torch gets there."""
