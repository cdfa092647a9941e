"""Users, roles and grants, with RBAC on."""

from pymilvus import Collection, CollectionSchema, DataType, FieldSchema, Role, utility

USER, PASSWORD = "reader", "Secret-1"


class Access:
    def __init__(self, stage, said):
        self.stage = stage
        self.said = said

    def steps(self):
        return [self.strangers, self.users, self.rights]

    def rows(self):
        return {}

    def strangers(self):
        self.said.refused("wrong password", self.stage.milvus.connect, "stranger", "root", "wrong")

    def users(self):
        utility.create_user(USER, PASSWORD)
        self.said.say("users", sorted(utility.list_usernames()))
        self.said.refused("user twice", utility.create_user, USER, PASSWORD)
        role = Role("readers")
        role.create()
        role.add_user(USER)
        role.grant("Collection", "*", "Query")
        grants = [(one.object, one.object_name, one.privilege) for one in role.list_grants().groups]
        self.said.say("grants", grants)

    def rights(self):
        self.stage.milvus.connect(USER, USER, PASSWORD)
        schema = CollectionSchema([
            FieldSchema("id", DataType.INT64, is_primary=True),
            FieldSchema("vector", DataType.FLOAT_VECTOR, dim=4),
        ])
        self.said.refused("create without a right", Collection, "forbidden", schema, using=USER)
        self.said.say("collections of a reader", utility.list_collections(using=USER))

    def end(self):
        role = Role("readers")
        role.revoke("Collection", "*", "Query")
        role.remove_user(USER)
        role.drop()
        utility.delete_user(USER)
        self.said.say("users", sorted(utility.list_usernames()))
