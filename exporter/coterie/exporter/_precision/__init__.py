"""Bundles in less than fp32: what is stored and computed in which precision, and what that costs a task.

    _int8         a tensor as int8 and scales; the ONNX nodes that compute with them
    _rewrite      what it takes to compute a traced block in another precision
    _int8_blocks  which of a block's weights become int8, and what their nodes become
    _half         the same for fp16 and bf16
    _rewrites     from a precision to the three
    _heads        the stacked heads in each precision
    _choose       which blocks keep fp32, so that no task loses more than it may
    _agree        task graphs and router compute the same function

A tensor is narrowed once, before any graph is made: the graphs of all tasks and the router refer to the same
bytes.
"""
