"""mode=plan: the stages to run and what they will take, before anything is spent."""
