//! What the provider says of a task: in callbacks and in answers to queries.

use serde_json::{Value, json};

use super::Simulator;
use super::tasks::{Family, Kind, Part, Role, State, Task};
use crate::clock::Millis;

/// The callback of a part that is finished; `credits` are what the account has left.
pub(super) fn callback(simulator: &Simulator, task: &Task, part: &Part, credits: f64) -> Value {
    match (part.kind, task.family) {
        (Kind::Video, Family::Market) => market_callback(simulator, task, part, credits),
        (Kind::Video, _) => veo_callback(simulator, task, part),
        _ => uhd_callback(simulator, task, part),
    }
}

fn veo_callback(simulator: &Simulator, task: &Task, part: &Part) -> Value {
    if let Some(mishap) = part.mishap {
        let data = json!({ "taskId": task.id, "fallbackFlag": false });
        return json!({ "code": mishap.code, "msg": mishap.msg, "data": data });
    }
    let mut info = json!({
        "resultUrls": simulator.links(task, part, Role::Result),
        "resolution": resolution(task),
    });
    let origins = simulator.links(task, part, Role::Origin);
    if !origins.is_empty() {
        info["originUrls"] = json!(origins);
    }
    let msg = match task.family {
        Family::Extend => "Veo3.1 video extension successful.",
        _ => "Veo3.1 video generated successfully.",
    };
    json!({
        "code": 200,
        "msg": msg,
        "data": {
            "taskId": task.id,
            "info": info,
            "fallbackFlag": false,
            "promptJson": prompt_json(task),
            "creditsConsumed": task.cost,
        },
    })
}

/// The request as callbacks echo it, `aspectRatio` always in camel case.
fn prompt_json(task: &Task) -> Value {
    let params = &task.params;
    json!({
        "prompt": params["prompt"],
        "model": params["model"],
        "aspectRatio": task.text(&["aspect_ratio", "aspectRatio"]),
        "callBackUrl": params["callBackUrl"],
        "enableFallback": params["enableFallback"].as_bool().unwrap_or_default(),
        "enableTranslation": params["enableTranslation"].as_bool().unwrap_or(true),
    })
}

fn resolution(task: &Task) -> &str {
    task.text(&["resolution"]).unwrap_or("720p")
}

/// Says neither which kind it is nor which index, and carries the id of the task that was upgraded.
fn uhd_callback(simulator: &Simulator, task: &Task, part: &Part) -> Value {
    match part.mishap {
        Some(mishap) => json!({ "code": mishap.code, "msg": mishap.msg, "data": { "taskId": task.id } }),
        None => json!({
            "code": 200,
            "msg": "4K Video generated successfully.",
            "data": { "taskId": task.id, "info": upgraded(simulator, task, part) },
        }),
    }
}

fn upgraded(simulator: &Simulator, task: &Task, part: &Part) -> Value {
    json!({
        "resultUrls": simulator.links(task, part, Role::Result),
        "imageUrls": simulator.links(task, part, Role::Image),
    })
}

/// What a repeated request for an upgrade is answered: the code, the sentence, and the URLs if there are any.
///
/// That the failure is told again is a choice: nothing is documented, and a second upgrade would cost again.
pub(super) fn repeated_upgrade(
    simulator: &Simulator,
    task: &Task,
    part: &Part,
) -> (u16, &'static str, Value) {
    let mut data = json!({ "taskId": task.id, "resultUrls": null, "imageUrls": null });
    match part.state(simulator.0.clock.now()) {
        State::Generating => (
            422,
            "4k is processing. It should be ready in 5-10 minutes. Please check back shortly.",
            data,
        ),
        State::Failed(mishap) => (mishap.code, mishap.msg, data),
        State::Succeeded => {
            let urls = upgraded(simulator, task, part);
            data["resultUrls"] = urls["resultUrls"].clone();
            data["imageUrls"] = urls["imageUrls"].clone();
            (422, "The video has been generated successfully", data)
        }
    }
}

/// What `veo/record-info` says of a task.
pub(super) fn veo_record(simulator: &Simulator, task: &Task) -> Value {
    let part = task.base();
    let state = part.state(simulator.0.clock.now());
    let mut data = json!({
        "taskId": task.id,
        "paramJson": task.params.to_string(),
        "createTime": zoneless(part.asked),
        "completeTime": null,
        "response": null,
        "successFlag": 0,
        "errorCode": null,
        "errorMessage": null,
        "fallbackFlag": false,
    });
    match state {
        State::Generating => {}
        State::Succeeded => {
            data["successFlag"] = json!(1);
            data["errorMessage"] = json!("");
            data["response"] = veo_response(simulator, task, part);
        }
        State::Failed(mishap) => {
            data["successFlag"] = json!(mishap.flag);
            data["errorCode"] = json!(mishap.error_code);
            data["errorMessage"] = json!(mishap.msg);
        }
    }
    if state != State::Generating {
        data["completeTime"] = json!(zoneless(part.ready));
    }
    data
}

fn veo_response(simulator: &Simulator, task: &Task, part: &Part) -> Value {
    let urls = |role| {
        let urls = simulator.links(task, part, role);
        if urls.is_empty() { Value::Null } else { json!(urls) }
    };
    json!({
        "taskId": task.id,
        "resultUrls": urls(Role::Result),
        "originUrls": urls(Role::Origin),
        "fullResultUrls": urls(Role::Full),
        "resolution": resolution(task),
    })
}

/// `2025-06-06 10:25:00`, as the record has it: which zone that is nobody says. Here it is UTC.
fn zoneless(at: Millis) -> String {
    let moment = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    moment.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// What `jobs/recordInfo` says of a task, by a live sample: `param.input` is JSON in JSON in a string, `costTime` in
/// seconds, and null what there is none of.
pub(super) fn market_record(simulator: &Simulator, task: &Task) -> Value {
    let part = task.base();
    let now = simulator.0.clock.now();
    let mut data = json!({
        "taskId": task.id,
        "model": task.params["model"],
        "state": "",
        "param": market_param(task),
        "resultJson": "",
        "failCode": null,
        "failMsg": null,
        "costTime": null,
        "completeTime": null,
        "createTime": part.asked,
    });
    data["state"] = json!(match part.state(now) {
        State::Generating => in_progress(part, now),
        State::Succeeded => "success",
        State::Failed(_) => "fail",
    });
    match part.state(now) {
        State::Generating => return data,
        State::Succeeded => data["resultJson"] = json!(result_json(simulator, task, part)),
        State::Failed(mishap) => {
            data["failCode"] = json!(mishap.error_code.to_string());
            data["failMsg"] = json!(FAIL_MSG);
        }
    }
    data["costTime"] = json!((part.ready - part.asked) / 1_000);
    data["completeTime"] = json!(part.ready);
    data
}

fn in_progress(part: &Part, now: Millis) -> &'static str {
    match (now - part.asked) * 10 / (part.ready - part.asked).max(1) {
        ..1 => "waiting",
        1..3 => "queuing",
        _ => "generating",
    }
}

fn market_callback(simulator: &Simulator, task: &Task, part: &Part, credits: f64) -> Value {
    let mut data = json!({
        "taskId": task.id,
        "model": task.params["model"],
        "param": market_param(task),
        "costTime": (part.ready - part.asked) / 1_000,
        "completeTime": part.ready,
        "createTime": part.asked,
        "updateTime": part.ready,
        "consumeCredits": if part.mishap.is_some() { 0.0 } else { task.cost },
        "remainedCredits": credits,
    });
    let (code, msg) = if let Some(mishap) = part.mishap {
        data["state"] = json!("fail");
        data["failCode"] = json!(mishap.error_code.to_string());
        data["failMsg"] = json!(FAIL_MSG);
        (mishap.code, mishap.msg)
    } else {
        data["state"] = json!("success");
        data["resultJson"] = json!(result_json(simulator, task, part));
        (200, "Playground task completed successfully.")
    };
    json!({ "code": code, "msg": msg, "data": data })
}

/// What went wrong with a Market job, by the example of its page.
const FAIL_MSG: &str = "Internal server error";

fn result_json(simulator: &Simulator, task: &Task, part: &Part) -> String {
    json!({ "resultUrls": simulator.links(task, part, Role::Result) }).to_string()
}

fn market_param(task: &Task) -> String {
    let params = &task.params;
    json!({
        "callBackUrl": params["callBackUrl"],
        "model": params["model"],
        "input": params["input"].to_string(),
    })
    .to_string()
}
