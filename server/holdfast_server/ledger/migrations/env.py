"""What Alembic runs: the steps, on the connection and in the transaction of whoever asked."""

from alembic import context

from holdfast_server.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
