//! Containers that need others, as Compose knows it.

use crate::support::{docker::DockerCli, dormouse::Dormouse};

/// Labels as Compose writes them.
fn composed(cli: &DockerCli, service: &str, needs: &str) -> Vec<String> {
    vec![
        "--expose=80".to_owned(),
        format!("--label=com.docker.compose.project={}", cli.prefix),
        format!("--label=com.docker.compose.service={service}"),
        format!("--label=com.docker.compose.depends_on={needs}"),
        format!("--label={}.depends_on=compose", cli.prefix),
    ]
}

async fn create(cli: &DockerCli, service: &str, needs: &str, extra: &[&str], arguments: &[&str]) -> String {
    let labels = composed(cli, service, needs);
    let options: Vec<_> = labels.iter().map(String::as_str).chain(extra.iter().copied()).collect();
    cli.container(&["create"], service, &options, arguments).await
}

#[tokio::test]
async fn a_one_shot_of_compose_runs_once_to_its_end_after_what_it_needs() {
    let Some(cli) = DockerCli::new() else { return };
    let database = create(&cli, "db", "", &[], &[]).await;
    let job = ["--delay-start=500ms", "--exit-code=0"];
    let migrate = create(&cli, "migrate", "db:service_started:false", &[], &job).await;
    let idle = format!("--label={}.idle_timeout=1s", cli.prefix);
    let needs = "db:service_started:false,migrate:service_completed_successfully:false";
    let app = create(&cli, "app", needs, &[&idle], &[]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&app).await;
    assert_eq!(dormouse.get(&app, "/").await.status, 200);
    let happened = async |name: &str, what: &str| cli.happened_at(name, what).await;
    assert!(happened(&database, "start").await < happened(&migrate, "start").await);
    assert!(happened(&migrate, "die").await < happened(&app, "start").await);
    assert_eq!(cli.inspect(&migrate, "{{.State.ExitCode}}").await, "0");
    // Down with its last dependant, and up again without the job.
    dormouse.comes_to(&app, "stopped").await;
    dormouse.comes_to(&database, "stopped").await;
    assert_eq!(dormouse.get(&app, "/").await.status, 200);
    assert_eq!((cli.count(&database, "start").await, cli.count(&migrate, "start").await), (2, 1));
}

#[tokio::test]
async fn a_one_shot_that_fails_is_named_and_its_dependant_is_not_started() {
    let Some(cli) = DockerCli::new() else { return };
    let migrate = create(&cli, "migrate", "", &[], &["--exit-code=3"]).await;
    let idle = format!("--label={}.idle_timeout=1h", cli.prefix);
    let app = create(&cli, "app", "migrate:service_completed_successfully:false", &[&idle], &[]).await;
    let dormouse = Dormouse::start(&cli.config()).await;
    dormouse.knows(&app).await;
    let reply = dormouse.get(&app, "/").await;
    assert_eq!(reply.status, 503, "{reply:?}");
    dormouse.has_logged(&app, "ended with exit code 3", 1).await;
    assert_eq!((cli.count(&migrate, "start").await, cli.count(&app, "start").await), (1, 0));
}
