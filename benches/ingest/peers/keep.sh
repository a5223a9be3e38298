# keep.sh TASK_ID BODY: what webhook runs for a callback. It answers once this ended, with what this prints.
# A file of that name is left as it is. webhook can verify signatures of bodies only, and the provider signs the task id.
set -eu
case $1 in
    '' | *[!0-9A-Za-z_-]*) exit 1 ;;
esac
mkdir -p kept
if (set -C && printf '%s' "$2" >"kept/$1.json") 2>/dev/null; then
    sync "kept/$1.json" kept
fi
echo '{"code":200,"msg":"success"}'
