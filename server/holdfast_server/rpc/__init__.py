"""gRPC: servicers that translate, the wrapper around every call, errors as statuses."""
