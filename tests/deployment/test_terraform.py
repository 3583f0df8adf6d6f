"""The Terraform files, as far as they can be judged without Terraform: parsed and cross-checked."""

import re
import shutil
from functools import cache
from pathlib import Path

import hcl2
import pytest
import yaml
from hcl2 import SerializationOptions

PROJECT = Path(__file__).resolve().parents[2]
TERRAFORM = PROJECT / "deployment" / "terraform"
MODULES = sorted(folder.name for folder in (TERRAFORM / "modules").iterdir())
PLAIN = SerializationOptions(with_comments=False, explicit_blocks=False, strip_string_quotes=True)
META = {"source", "version", "count", "for_each", "depends_on", "providers"}
PROJECT_ROLES = {"roles/aiplatform.user", "roles/logging.logWriter", "roles/logging.viewer"}

# What terraform.tfvars.example comes to, with the addresses that only an apply would tell.
KNOWN_AFTER_APPLY = {
    "module.bucket.url": "gs://my-project-tamis",
    "module.registry.url": "us-central1-docker.pkg.dev/my-project/tamis",
    "module.identities.steps": "tamis-steps@my-project.iam.gserviceaccount.com",
    "module.network.peered_name": "projects/123456789/global/networks/tamis",
    "one(module.servers[*].zenml_url)": "https://zenml-abc.run.app",
    "one(module.servers[*].mlflow_url)": "https://mlflow-abc.run.app",
}
KEYS = """kind project region bucket registry image gpu_image service_account zenml_server mlflow
network labels machines steps retries"""


@cache
def parsed(text):
    return hcl2.loads(text, serialization_options=PLAIN)


def named(blocks):
    return {name: body for block in blocks for name, body in block.items()}


class Module:
    """All files of one folder as one."""

    def __init__(self, folder):
        self.folder = folder
        self.blocks = [parsed(file.read_text()) for file in sorted(folder.glob("*.tf"))]
        self.variables = named(self.of("variable"))
        self.outputs = named(self.of("output"))
        self.modules = named(self.of("module"))
        self.locals = {key: value for block in self.of("locals") for key, value in block.items()}
        self.resources = self.typed("resource")
        self.data = self.typed("data")

    def of(self, kind):
        return [block for file in self.blocks for block in file.get(kind, [])]

    def typed(self, kind):
        return {
            (type_, name): body
            for block in self.of(kind)
            for type_, bodies in block.items()
            for name, body in bodies.items()
        }

    def all(self, type_):
        return {name: body for (found, name), body in self.resources.items() if found == type_}


def expressions(value):
    """Every string below a value that holds an expression, keys included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from expressions(key)
            yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)
    elif isinstance(value, str) and "${" in value:
        yield value


def called(module, call):
    return Module((module.folder / call["source"]).resolve())


def undeclared(module):
    """References of a module to what nobody declares."""
    for text in expressions(module.blocks):
        for name in re.findall(r"\bvar\.(\w+)", text):
            if name not in module.variables:
                yield f"var.{name}"
        for name in re.findall(r"\blocal\.(\w+)", text):
            if name not in module.locals:
                yield f"local.{name}"
        for name, output in re.findall(r"\bmodule\.(\w+)(?:\[[*\w\"]+\])?(?:\.(\w+))?", text):
            if name not in module.modules:
                yield f"module.{name}"
            elif output and output not in called(module, module.modules[name]).outputs:
                yield f"module.{name}.{output}"
        for type_, name in re.findall(r"\bdata\.(google_\w+)\.(\w+)", text):
            if (type_, name) not in module.data:
                yield f"data.{type_}.{name}"
        for type_, name in re.findall(r"(?<!data\.)\b((?:google|random)_\w+)\.(\w+)", text):
            if (type_, name) not in module.resources:
                yield f"{type_}.{name}"


def wrong_calls(module):
    """Arguments of module calls that are missing or that nobody asked for."""
    for name, call in module.modules.items():
        takes = called(module, call).variables
        given = set(call) - META
        needed = {key for key, body in takes.items() if "default" not in body}
        yield from (f"{name}: {key} is missing" for key in needed - given)
        yield from (f"{name}: {key} is unknown" for key in given - set(takes))


def undocumented(module):
    for name, body in module.variables.items():
        if not body.get("description") or not body.get("type"):
            yield f"variable {name}"
        if not re.search(rf"\bvar\.{name}\b", " ".join(expressions(module.blocks))):
            yield f"variable {name} is not used"
    for name, body in module.outputs.items():
        if not body.get("description"):
            yield f"output {name}"


def leaked(module):
    """Generated passwords anywhere but in the database's users and in sensitive variables."""
    users = ("google_sql_user", "google_sql_database_instance")
    for (type_, name), body in module.resources.items():
        allowed = {"password", "root_password"} if type_ in users else set()
        for key, value in body.items():
            if key not in allowed and any("random_password." in e for e in expressions(value)):
                yield f"{type_}.{name}.{key}"
    for name, call in module.modules.items():
        takes = called(module, call).variables
        for key, value in call.items():
            hot = any("random_password." in text for text in expressions(value))
            if hot and not takes.get(key, {}).get("sensitive"):
                yield f"module.{name}.{key}"
    for kind in (module.outputs, module.locals):
        for name, body in kind.items():
            if re.search(r"random_password|secret_data|var\.values|\.password\b", str(body)):
                yield name


def loose_grants(module):
    for (type_, name), body in module.resources.items():
        text = str(body)
        if "allUsers" in text or "allAuthenticatedUsers" in text:
            yield f"{type_}.{name}: everybody"
        if type_.endswith(("_iam_binding", "_iam_policy")):
            yield f"{type_}.{name}: takes grants of others away"
    for text in re.findall(r"roles/[\w.]+", str(module.blocks)):
        if re.search(r"roles/(owner|editor|viewer)$|[aA]dmin$", text):
            yield text


def problems(root):
    modules = [Module(root), *(Module(root / "modules" / name) for name in MODULES)]
    checks = (undeclared, wrong_calls, undocumented, leaked, loose_grants)
    return [
        f"{module.folder.name}: {problem}"
        for module in modules
        for check in checks
        for problem in check(module)
    ]


def test_references_calls_grants_and_secrets():
    assert len(list(TERRAFORM.rglob("*.tf"))) > 25
    assert problems(TERRAFORM) == []


# What is broken in which file, and what has to be told of it.
BROKEN = """
main.tf                         | var.region                          | var.regoin | var.regoin
main.tf                         | module.bucket.url                   | module.bucket.uri | bucket.uri
main.tf                         | public                 = var.public | # public | public is missing
main.tf                         | scanning =                          | scan = | scan is unknown
main.tf                         | data.google_project.this            | data.google_project.that | that
modules/servers/zenml.tf        | local.ingress                       | local.ingres | local.ingres
modules/bucket/outputs.tf       | google_storage_bucket.this          | google_storage_bucket.a | bucket.a
modules/ray/outputs.tf          | description                         | # | output service_account
modules/ray/variables.tf        | type                                | # | variable project
modules/ray/main.tf             | var.name                            | var.project | name is not used
modules/servers/outputs.tf      | var.administrator                   | random_password.key | admin_logins
modules/servers/mlflow.tf       | value = "/secrets/login/login.ini"  | value = random_password.key | template
modules/secrets/variables.tf    | sensitive                           | # | module.secrets.values
modules/identities/main.tf      | roles/logging.viewer                | roles/owner | roles/owner
modules/registry/main.tf        | artifactregistry.writer             | artifactregistry.admin | registry.admin
modules/schedules/main.tf       | "serviceAccount:${var.scheduler_service_account}" | "allUsers" | everybody
"""  # noqa: E501
CASES = [[cell.strip() for cell in line.split("|")] for line in BROKEN.strip().splitlines()]


@pytest.mark.parametrize(("file", "before", "after", "told"), CASES)
def test_what_is_broken_is_found(file, before, after, told, tmp_path):
    root = tmp_path / "terraform"
    shutil.copytree(TERRAFORM, root)
    text = (root / file).read_text()
    assert before in text
    (root / file).write_text(text.replace(before, after))
    assert any(told in problem for problem in problems(root))


def evaluated(expression, root, variables):
    """The few kinds of expression that the file for the stack is made of."""
    if expression in KNOWN_AFTER_APPLY:
        return KNOWN_AFTER_APPLY[expression]
    if chosen := re.fullmatch(r"(\S+) \? (.+) : (.+)", expression):
        return evaluated(chosen[2 if evaluated(chosen[1], root, variables) else 3], root, variables)
    if name := re.fullmatch(r"var\.(\w+)", expression):
        return variables[name[1]]
    if name := re.fullmatch(r"local\.(\w+)", expression):
        return rendered(root.locals[name[1]], root, variables)
    assert expression == "null"
    return None


def rendered(value, root, variables):
    if isinstance(value, dict):
        return {key: rendered(inner, root, variables) for key, inner in value.items()}
    if not isinstance(value, str):
        return value
    if whole := re.fullmatch(r"\$\{([^{}]+)\}", value):
        return evaluated(whole[1], root, variables)
    return re.sub(r"\$\{([^{}]+)\}", lambda m: str(evaluated(m[1], root, variables)), value)


def example():
    return parsed((TERRAFORM / "terraform.tfvars.example").read_text())


def stack(**changed):
    root = Module(TERRAFORM)
    defaults = {k: v["default"] for k, v in root.variables.items() if "default" in v}
    variables = {**defaults, **example(), **changed}
    return rendered(root.locals["vertex_stack"], root, variables)


def test_the_stack_file_has_the_keys_that_the_stack_knows_and_no_other():
    output = Module(TERRAFORM).outputs["vertex_stack"]
    assert output["value"] == "${yamlencode(local.vertex_stack)}"
    made = stack()
    assert set(made) == set(KEYS.split())
    assert set(made["mlflow"]) == {"tracking_uri", "secret"}
    assert made["image"] == f"{made['registry']}/steps:0.1.0-cpu"
    assert made["gpu_image"] == f"{made['registry']}/steps:0.1.0-gpu"
    assert made["zenml_server"] == "https://zenml-abc.run.app"
    assert made["network"] is None
    assert stack(vertex_peering=True)["network"] == "projects/123456789/global/networks/tamis"
    assert stack(servers=False, zenml_server="https://own")["zenml_server"] == "https://own"


def test_the_stack_takes_the_file():
    from deployment.vertex.settings import VertexStack

    for made in (stack(), stack(vertex_peering=True)):
        VertexStack.model_validate(yaml.safe_load(yaml.safe_dump(made)))


def test_machines_and_steps_are_those_of_the_stack_file_that_ships():
    shipped = yaml.safe_load((PROJECT / "configs" / "stacks" / "vertex.yaml").read_text())
    for key in ("machines", "steps", "retries"):
        assert stack()[key] == shipped[key]


def test_variables_are_validated_and_the_example_names_what_is_needed():
    variables = Module(TERRAFORM).variables
    for name, body in variables.items():
        assert body["type"] == "bool" or body.get("validation"), name
    given = set(example())
    assert given <= set(variables)
    assert {name for name, body in variables.items() if "default" not in body} <= given
    text = (TERRAFORM / "terraform.tfvars.example").read_text()
    commented = set(re.findall(r"^# (\w+) +=", text, re.MULTILINE))
    assert commented and commented <= set(variables)


def test_providers_are_pinned():
    (settings,) = Module(TERRAFORM).of("terraform")
    (providers,) = settings["required_providers"]
    assert set(providers) == {"google", "random"}
    for name, provider in providers.items():
        assert provider["source"] == f"hashicorp/{name}"
        assert re.fullmatch(r"\d+\.\d+\.\d+", provider["version"])
    assert "<" in settings["required_version"]
    assert settings["backend"] == [{"gcs": {}}], "where the state is, is given at init"


def module(name):
    return Module(TERRAFORM / "modules" / name)


def test_buckets_are_private_and_keep_what_was_overwritten():
    (bucket,) = module("bucket").all("google_storage_bucket").values()
    assert bucket["public_access_prevention"] == "enforced"
    assert bucket["uniform_bucket_level_access"] is True
    assert bucket["force_destroy"] is False
    assert bucket["versioning"] == [{"enabled": True}] and bucket["soft_delete_policy"]
    assert "days_since_noncurrent_time" in str(bucket["lifecycle_rule"])
    calls = Module(TERRAFORM).modules
    assert {"code_uploads/", "vertex_pipeline_root/"} <= set(calls["bucket"]["expiry_days"])
    assert set(calls["mlflow_bucket"]["members"]) == {"mlflow"}


def test_grants_on_the_project_are_few_and_people_act_as_the_steps_only():
    identities = module("identities")
    roles = identities.locals["project_roles"]
    assert {role for given in roles.values() for role in given} == PROJECT_ROLES
    assert not set(roles) & {"scheduler", "zenml", "mlflow"}
    for grant in module("ray").all("google_project_iam_member").values():
        assert grant["role"] in PROJECT_ROLES
    grants = identities.all("google_service_account_iam_member").values()
    (acting,) = (grant for grant in grants if grant["role"] == "roles/iam.serviceAccountUser")
    assert acting["service_account_id"] == '${google_service_account.account["steps"].name}'
    (provider,) = identities.all("google_iam_workload_identity_pool_provider").values()
    assert "assertion.repository == " in provider["attribute_condition"]
    assert "assertion.ref == 'refs/heads/main'" in provider["attribute_condition"]


def test_tags_of_images_are_immutable_and_the_cache_can_be_overwritten():
    repositories = module("registry").all("google_artifact_registry_repository")
    assert repositories["images"]["docker_config"] == [{"immutable_tags": True}]
    assert "docker_config" not in repositories["cache"]
    assert all(repository["cleanup_policies"] for repository in repositories.values())


def test_the_database_is_private_protected_and_backed_up():
    (database,) = module("servers").all("google_sql_database_instance").values()
    (settings,) = database["settings"]
    (network,) = settings["ip_configuration"]
    assert network["ipv4_enabled"] is False
    assert network["ssl_mode"] == "ENCRYPTED_ONLY"
    assert settings["backup_configuration"][0]["enabled"] is True
    assert settings["backup_configuration"][0]["binary_log_enabled"] is True
    assert database["deletion_protection"] == "${var.deletion_protection}"
    assert settings["deletion_protection_enabled"] == "${var.deletion_protection}"
    assert Module(TERRAFORM).variables["deletion_protection"]["default"] is True


def test_servers_are_private_unless_asked_and_always_up():
    root = Module(TERRAFORM)
    assert root.variables["public_servers"]["default"] is False
    assert root.modules["servers"]["public"] == "${var.public_servers}"
    assert module("servers").locals["ingress"].startswith("${var.public ? ")
    services = module("servers").all("google_cloud_run_v2_service")
    assert set(services) == {"zenml", "mlflow"}
    for service in services.values():
        assert service["ingress"] == "${local.ingress}"
        assert service["deletion_protection"] == "${var.deletion_protection}"
        assert service["template"][0]["scaling"][0]["min_instance_count"] == 1


def test_servers_ask_for_a_login_and_take_secrets_by_reference():
    services = module("servers").all("google_cloud_run_v2_service")
    mlflow, zenml = (services[n]["template"][0]["containers"][0] for n in ("mlflow", "zenml"))
    assert "--app-name=basic-auth" in mlflow["args"]
    assert "--artifacts-destination=${var.mlflow_bucket}/mlflow" in mlflow["args"]
    plain, secret = (block["env"] for block in zenml["dynamic"])
    # Whoever comes first could activate a server that is not.
    assert plain["for_each"]["ZENML_SERVER_AUTO_ACTIVATE"] == "true"
    assert {"ZENML_STORE_URL", "ZENML_DEFAULT_USER_PASSWORD"} < set(secret["for_each"])
    (content,) = secret["content"]
    assert content["value_source"][0]["secret_key_ref"][0]["secret"]


def test_every_secret_of_the_servers_has_a_value_and_is_read_by_its_server_only():
    (call,) = module("servers").modules.values()
    secrets = module("servers").locals["secrets"]
    assert set(call["values"]) == set(secrets)
    for name, secret in secrets.items():
        reader = str(secret["readers"])
        if "zenml" in name:
            assert "mlflow_reader" not in reader
        if "mlflow" in name:
            assert "zenml_reader" not in reader


def test_servers_are_of_the_version_that_the_steps_talk_to():
    pins = dict(line.split("==") for line in (PROJECT / "requirements.txt").read_text().split())
    assert Module(TERRAFORM).variables["zenml_version"]["default"] == pins["zenml"]


def test_a_schedule_starts_a_job_that_runs_a_verb():
    (job,) = module("schedules").all("google_cloud_run_v2_job").values()
    container = job["template"][0]["template"][0]["containers"][0]
    assert container["command"] == ["python"]
    assert container["args"] == '${concat(["run.py", each.value.verb], each.value.args)}'


def test_the_plan_names_every_module_and_says_what_was_not_done():
    text = (TERRAFORM / "README.md").read_text()
    assert "never planned or applied" in text
    for name in MODULES:
        assert f"`{name}`" in text
