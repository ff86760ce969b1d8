"""What `mode=` can do with a composed config: a module per file of conf/mode, and what exports share."""
