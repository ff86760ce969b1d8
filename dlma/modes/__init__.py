"""What `mode=` can do with a composed config besides running it: one module per file of conf/mode."""
