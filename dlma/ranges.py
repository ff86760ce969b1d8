"""The ranges of configured numbers: signatures and the schema declare with them, and nothing else says them.

The check (config/signatures.py) reads them from the source, the docs' table of settings is made of them, and a test
walks every key beyond them. Every number is finite; the far ends are there so that a slip of the keyboard is a line
and not a day of computing.
"""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

Seed = Annotated[int, Ge(0), Le(9223372036854775807)]
Count = Annotated[int, Ge(1), Le(1000000000)]  # rows, tokens, requests
Whole = Annotated[int, Ge(0), Le(1000000000)]  # the same, with 0 for none
Few = Annotated[int, Ge(1), Le(10000)]  # passes over data, tries, connections: what is done in turn or side by side
Threads = Annotated[int, Ge(0), Le(1024)]  # 0 is torch's own choice
Stops = Annotated[int, Ge(0), Le(1000)]  # points along a training, 0 for none
Port = Annotated[int, Ge(0), Le(65535)]  # 0 is any free one
TwoOrMore = Annotated[int, Ge(2), Le(1000000000)]

Number = Annotated[float, Ge(-1e9), Le(1e9)]
Positive = Annotated[float, Gt(0), Le(1e9)]
NotNegative = Annotated[float, Ge(0), Le(1e9)]
Rate = Annotated[float, Gt(0), Le(1)]  # of learning: above 1 every optimizer here runs off
Share = Annotated[float, Ge(0), Le(1)]
PositiveShare = Annotated[float, Gt(0), Le(1)]
PartialShare = Annotated[float, Ge(0), Lt(1)]
InnerShare = Annotated[float, Gt(0), Lt(1)]
Minority = Annotated[float, Ge(0), Lt(0.5)]  # of labels that are wrong: from a half on they say the opposite
Correlation = Annotated[float, Ge(-1), Le(1)]
Temperature = Annotated[float, Ge(0), Le(100)]  # 0 takes the likeliest token
Flops = Annotated[float, Gt(0), Le(1e40)]

Dtype = Literal["float32", "bfloat16"]
DtypeOrAuto = Literal["float32", "bfloat16", "auto"]  # auto: as the machine has it (model/compute_dtype.py)
Names = Annotated[list[str], MinLen(1)]
