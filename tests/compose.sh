#!/usr/bin/env bash
# Runs examples/compose.yaml as it stands, with images made on the spot, and sees its apps answer, sleep and wake.
# Needs DORMOUSE_TEST_DOCKER (an engine whose network this process is in), DORMOUSE_TEST_STATIC (the program) and
# DORMOUSE_TEST_APP (the example app), both without shared libraries. `tests/run` gives it all three.
set -eu
cd "$(dirname "$0")/.."
export DOCKER_HOST=$DORMOUSE_TEST_DOCKER DOCKER_BUILDKIT=0 DORMOUSE_PORT=18080
export DOCKER_SOCKET=${DORMOUSE_TEST_DOCKER#unix://} COMPOSE_PROJECT_NAME=dormouse-compose-$$
work=$(mktemp -d)

compose() { docker-compose -f examples/compose.yaml "$@"; }

down() {
  local status=$?
  set +e
  if [ $status != 0 ]; then
    compose ps
    docker logs --tail 60 dormouse
  fi >&2
  compose down -v -t 1 >/dev/null 2>&1
  rm -rf "$work"
  exit $status
}
trap down EXIT

fail() { echo "$*" >&2; exit 1; }

# Waits for a condition of a container's state: until SECONDS TEMPLATE VALUE SERVICE
until_state() {
  local end=$((SECONDS + $1)) id seen
  id=$(compose ps -q "$4")
  while seen=$(docker inspect -f "$2" "$id"); [ "$seen" != "$3" ]; do
    [ $SECONDS -lt $end ] || fail "$4 is \`$seen\` and not \`$3\` after $1 s"
    sleep 0.1
  done
}

get() { curl -sS --max-time 30 -o "$work/body" -w '%{http_code}' -H "Host: $1.localhost" "http://127.0.0.1:$DORMOUSE_PORT/"; }

answers() { # ALIAS
  local code
  code=$(get "$1") || fail "$1 does not answer"
  [ "$code" = 200 ] || fail "$1 answers $code: $(head -c 300 "$work/body")"
}

# The images: the program by its own Dockerfile, the app by nothing but itself.
mkdir "$work/image"
cp "$DORMOUSE_TEST_STATIC" "$work/image/dormouse"
docker build -q -f config/Dockerfile -t dormouse:local "$work/image" >/dev/null
mkdir "$work/app"
cp "$DORMOUSE_TEST_APP" "$work/app/app"
tar -C "$work/app" -c . | docker import --change 'ENTRYPOINT ["/app"]' --change 'EXPOSE 80' - dormouse-example-app:local >/dev/null

compose up -d
end=$((SECONDS + 30))
until [ "$(get notes)" = 200 ]; do [ $SECONDS -lt $end ] || fail "no answer through Dormouse within 30 s"; sleep 0.2; done
answers wiki

until_state 40 '{{.State.Status}}' exited notes
until_state 40 '{{.State.Status}}' paused wiki
docker exec dormouse dormouse ps

answers notes
answers wiki
until_state 5 '{{.State.Status}}' running notes
until_state 5 '{{.State.Status}}' running wiki
answers notes

# The image's own health check, as the engine runs it.
until_state 60 '{{.State.Health.Status}}' healthy dormouse
echo "compose: apps answered, slept, and woke"
