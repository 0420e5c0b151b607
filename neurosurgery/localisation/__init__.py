"""Find the parameters that carry a skill: scores, rankings, and a selector per method."""
