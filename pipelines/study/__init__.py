"""Studies: arms and seeds under equal budgets."""
