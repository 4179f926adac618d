"""Messages and stubs of the contract, generated from proto/holdfast/v1; do not edit.

`types_pb2`, `stock_pb2`, `inventory_pb2`, `ledger_pb2` and `errors_pb2` hold the messages, each
`*_pb2_grpc` the stub and the servicer of its service.
"""
