//! One verb, from the command line to what is printed.

use serde_json::{Value, json};

use crate::cli::{Cli, Format, Verb, join};
use crate::client::{Answer, Client, Receipt};
use crate::error::Error;
use crate::options::Options;
use crate::output::{self, Printed, text};

/// Does what was asked. Must be called within a tokio runtime.
pub async fn run(cli: Cli, options: Options) -> Printed {
    let format = cli.global.output;
    let client = Client::new(options);
    let client = match cli.global.stamp() {
        Some(stamp) => client.repeating(stamp),
        None => client,
    };
    let printed = attempt(&client, cli.verb, format).await;
    printed.unwrap_or_else(|error| Printed::failure(format, &error))
}

async fn attempt(client: &Client, verb: Verb, format: Format) -> Result<Printed, Error> {
    match verb {
        Verb::Put { key, words } => {
            let value = join(&words);
            let receipt = client.put(key.clone(), value.clone()).await?;
            let value = text(&value);
            let human = format!("Success! Set \"{key}\" to: \"{value}\"");
            Ok(Printed::answer(
                format,
                human,
                &applied(&receipt, json!({ "key": key, "value": value })),
            ))
        }
        Verb::Get { key } => {
            let Answer { read_index, result } = client.get(key.clone()).await?;
            let Some(value) = result else { return Ok(Printed::absent(format, &key, read_index)) };
            let json = json!({ "key": key, "value": text(&value), "read_index": read_index });
            Ok(Printed::answer(format, value, &json))
        }
        Verb::Del { key } => {
            let receipt = client.delete(key.clone()).await?;
            let human = match receipt.result {
                Some(true) => format!("Success! Removed \"{key}\""),
                Some(false) => format!("Success! There was no \"{key}\""),
                None => format!(
                    "Success! \"{key}\" is removed; whether it was there is no longer known"
                ),
            };
            let existed = receipt.result;
            Ok(Printed::answer(
                format,
                human,
                &applied(&receipt, json!({ "key": key, "existed": existed })),
            ))
        }
        Verb::Incr { key, by } => {
            let receipt = client.incr(key.clone(), by).await?;
            let human =
                receipt.result.map_or_else(|| no_result(&receipt), |number| number.to_string());
            let value = receipt.result;
            Ok(Printed::answer(
                format,
                human,
                &applied(&receipt, json!({ "key": key, "value": value })),
            ))
        }
        Verb::Submit { words } => {
            let receipt = client.submit(join(&words)).await?;
            let result = receipt.result.as_ref().map(|result| text(result).into_owned());
            let human = result.clone().unwrap_or_else(|| no_result(&receipt));
            Ok(Printed::answer(format, human, &applied(&receipt, json!({ "result": result }))))
        }
        Verb::Query { words } => {
            let Answer { read_index, result } = client.query(join(&words)).await?;
            let json = json!({ "result": text(&result), "read_index": read_index });
            Ok(Printed::answer(format, result, &json))
        }
        Verb::Status { all: false } => {
            let status = client.status().await?;
            Ok(Printed::answer(format, output::status(&status), &json!(status)))
        }
        Verb::Status { all: true } => {
            let all = client.status_of_all().await;
            Ok(Printed::answer(format, output::status_table(&all), &output::status_json(&all)))
        }
        Verb::Members => {
            let members = client.members().await?;
            Ok(Printed::answer(format, output::members_table(&members), &json!(members)))
        }
    }
}

/// What every applied command has to say, and `more`.
fn applied<T>(receipt: &Receipt<T>, mut more: Value) -> Value {
    more["index"] = json!(receipt.index);
    more["session"] = json!(format!("{:016x}", receipt.stamp.session));
    more["sequence"] = json!(receipt.stamp.sequence);
    more
}

fn no_result<T>(receipt: &Receipt<T>) -> String {
    format!("Success! Applied at index {}; the result is no longer kept", receipt.index)
}
