"""Use cases of the controller: one file a noun, over the ports beside them. They write their audit event themselves."""
