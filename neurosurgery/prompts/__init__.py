"""Prompts with a known answer, each with a counterfactual that does not ask for the skill."""
