resource "random_password" "administrator" {
  for_each = toset(["zenml", "mlflow"])

  length = 24
  # A file of MLflow's is read with % as a sign of its own.
  special = false
}

resource "random_password" "key" {
  for_each = toset(["zenml-jwt", "zenml-encryption", "mlflow-flask"])

  length  = 64
  special = false
}

locals {
  zenml_reader  = { zenml = "serviceAccount:${var.zenml_service_account}" }
  mlflow_reader = { mlflow = "serviceAccount:${var.mlflow_service_account}" }

  # Who reads what: each server its own.
  secrets = {
    "${var.name}-zenml-store-url"      = { readers = local.zenml_reader }
    "${var.name}-zenml-admin-password" = { readers = local.zenml_reader }
    "${var.name}-zenml-jwt-key"        = { readers = local.zenml_reader }
    "${var.name}-zenml-encryption-key" = { readers = local.zenml_reader }
    "${var.name}-mlflow-store-uri"     = { readers = local.mlflow_reader }
    "${var.name}-mlflow-login"         = { readers = local.mlflow_reader }
    "${var.name}-mlflow-flask-key"     = { readers = local.mlflow_reader }
    # For people: the same password stands in mlflow-login, among other things.
    "${var.name}-mlflow-admin-password" = { readers = {} }
    # Not a secret, but a file that both servers need.
    "${var.name}-database-ca" = { readers = merge(local.zenml_reader, local.mlflow_reader) }
  }

  address   = google_sql_database_instance.this.private_ip_address
  mysql_tls = "ssl_ca=/secrets/database/ca.pem&ssl_check_hostname=false"
}

module "secrets" {
  source = "../secrets"

  project = var.project
  labels  = var.labels
  secrets = local.secrets
  filled  = keys(local.secrets)
  values = {
    "${var.name}-zenml-store-url"       = "mysql://zenml:${random_password.database["zenml"].result}@${local.address}:3306/zenml"
    "${var.name}-zenml-admin-password"  = random_password.administrator["zenml"].result
    "${var.name}-zenml-jwt-key"         = random_password.key["zenml-jwt"].result
    "${var.name}-zenml-encryption-key"  = random_password.key["zenml-encryption"].result
    "${var.name}-mlflow-store-uri"      = "mysql+pymysql://mlflow:${random_password.database["mlflow"].result}@${local.address}:3306/mlflow?${local.mysql_tls}"
    "${var.name}-mlflow-flask-key"      = random_password.key["mlflow-flask"].result
    "${var.name}-mlflow-admin-password" = random_password.administrator["mlflow"].result
    "${var.name}-mlflow-login" = templatefile("${path.module}/login.ini.tftpl", {
      database      = "mysql+pymysql://mlflow:${random_password.database["mlflow"].result}@${local.address}:3306/mlflow_auth?${local.mysql_tls}"
      administrator = var.administrator
      password      = random_password.administrator["mlflow"].result
    })
    "${var.name}-database-ca" = google_sql_database_instance.this.server_ca_cert[0].cert
  }
}
