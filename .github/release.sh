#!/usr/bin/env bash
# A version on a stack from registry to traffic: its package, its image, a canary beside what serves.
#
#   TASK=edu_quality STACK=staging REVISION=0123abc REGISTRY=us-central1-docker.pkg.dev/my-project/tamis \
#   PROJECT=my-project REGION=us-central1 .github/release.sh [--train]
#
# --train trains a challenger first; without, the champion is released with the code of this revision.
set -euo pipefail

for name in TASK STACK REVISION REGISTRY PROJECT REGION; do
    [ -n "${!name:-}" ] || { echo "error: $name is not set" >&2; exit 2; }
done

tamis() { .venv/bin/python run.py "$@" --task "$TASK" --stack "$STACK"; }

chosen=()
if [ "${1:-}" = --train ]; then
    # Exit code 3, and so the end here, when the gate refuses the model.
    tamis train --result train.json
    chosen=(--version "$(jq --exit-status --raw-output .model_version train.json)")
fi

tamis package "${chosen[@]}" --result package.json
context=$(find .tamis -path "*/packages/$TASK/*" -name Dockerfile -printf '%h\n' -quit)
version=$(jq --exit-status --raw-output .model_version package.json)
image="$REGISTRY/serving:$TASK-$version-${REVISION:0:12}"
docker build --pull --tag "$image" "$context"

# What is pushed becomes ready as it will run: read-only, without rights, its model loaded.
printf '{"keys":[{"name":"smoke","hash":"%s"}]}' "$(openssl rand -hex 32)" > keys.json
chmod a+r keys.json
docker run --detach --rm --name smoke --read-only --tmpfs /tmp --cap-drop ALL \
    --security-opt no-new-privileges --publish 127.0.0.1:3000:3000 \
    --volume "$PWD/keys.json:/etc/tamis/keys.json:ro" --env TAMIS_SERVE_KEYS_FILE=/etc/tamis/keys.json "$image"
trap 'docker logs smoke || true; docker stop smoke || true' EXIT
curl --fail --silent --show-error --retry 60 --retry-delay 2 --retry-all-errors http://127.0.0.1:3000/readyz
docker stop smoke
trap - EXIT

token=$(gcloud auth print-access-token)
docker login --username oauth2accesstoken --password-stdin "https://${REGISTRY%%/*}" <<< "$token"
docker push "$image"

# The canary is compared with what serves, and promoted or taken back by that comparison.
tamis release "${chosen[@]}" --strategy canary --target cloud-run --result release.json --set \
    "release.cloud_run={project: $PROJECT, region: $REGION, service: tamis-${TASK//_/-}, image: '$REGISTRY/serving:$TASK-{version}-${REVISION:0:12}', service_account: tamis-serving@$PROJECT.iam.gserviceaccount.com, keys_secret: tamis-serving-keys}"
