"""ecgstudy: what an electrocardiogram gives away about its owner."""
