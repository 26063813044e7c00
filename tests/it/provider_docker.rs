//! What the Docker provider promises beyond the common verbs, on a real engine.

use dormouse::{
    model::{ContainerState, Running, SleepMethod, Spot, StopSignal, Unit},
    provider::{Changed, Docker, Hint, Provider, StopOrder},
};
use futures_util::StreamExt;

use crate::support::{
    docker::DockerCli,
    rig::{node, stopped, unit},
    wait::{LONG, must},
};

const STOP: StopOrder = StopOrder { method: SleepMethod::Stop, signal: None, grace: LONG };

fn engine() -> Option<(DockerCli, Docker)> {
    let cli = DockerCli::new()?;
    let provider = Docker::connect(node(), &cli.address.as_str().into()).unwrap();
    Some((cli, provider))
}

async fn reached(provider: &Docker, unit: &Unit) -> Running {
    match provider.look(unit).await.unwrap() {
        ContainerState::Running(how) => how,
        other @ (ContainerState::Paused(_)
        | ContainerState::Stopped { .. }
        | ContainerState::Changing
        | ContainerState::Gone) => panic!("{} is {other:?}", unit.name),
    }
}

async fn log_has(provider: &Docker, unit: &Unit, words: &str) {
    let find = provider.log_lines(unit).any(|line| std::future::ready(line.contains(words)));
    assert!(must(words, find).await, "{words:?} in the log of {}", unit.name);
}

#[tokio::test]
async fn another_signal_than_its_own_is_sent_and_it_stays_down() {
    let Some((cli, provider)) = engine() else { return };
    let options = ["--stop-signal", "QUIT", "--restart", "always"];
    let unit = unit(&cli.container(&["run", "-d"], "app", &options, &[]).await);
    log_has(&provider, &unit, "ready").await;
    let order = StopOrder { signal: Some("INT".parse::<StopSignal>().unwrap()), ..STOP };
    let since = std::time::Instant::now();
    assert_eq!(provider.stop(&unit, order).await.unwrap(), Changed::Done);
    assert!(since.elapsed() < LONG / 2, "its end is noticed also where its policy starts it again");
    let log = cli.run(&["logs", &unit.name]).await;
    assert!(log.contains("got INT") && !log.contains("got QUIT"), "{log}");
    assert!(stopped(&provider.look(&unit).await.unwrap()));
    // An engine that were to start it again by its policy would do so within 100 ms, and then more and more slowly.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(stopped(&provider.look(&unit).await.unwrap()));
}

#[tokio::test]
async fn the_address_is_of_the_wanted_network() {
    let Some((cli, provider)) = engine() else { return };
    let (one, two) = (cli.network("a").await, cli.network("b").await);
    let name = cli.container(&["create"], "app", &["--network", &one], &[]).await;
    cli.run(&["network", "connect", &two, &name]).await;
    let of = async |network: &str| {
        let format = format!("{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}");
        cli.run(&["inspect", "-f", &format, &name]).await
    };
    let unit = unit(&name);
    provider.start(&unit).await.unwrap();
    for (wanted, real) in [(None, &one), (Some(&one), &one), (Some(&two), &two)] {
        let unit = Unit { network: wanted.cloned(), ..unit.clone() };
        let address = reached(&provider, &unit).await.address.unwrap().to_string();
        assert_eq!(address, of(real).await, "{wanted:?}");
    }
    let guest =
        cli.container(&["run", "-d"], "guest", &["--network", &format!("container:{name}")], &["--port=81"]).await;
    let address = reached(&provider, &self::unit(&guest)).await.address.unwrap().to_string();
    assert_eq!(address, of(&one).await);
}

#[tokio::test]
async fn host_and_no_network_are_told() {
    let Some((cli, provider)) = engine() else { return };
    let options = ["--network", "host"];
    let host = unit(&cli.container(&["run", "-d"], "host", &options, &["--never-listen"]).await);
    let how = reached(&provider, &host).await;
    assert!(how.host_network && how.address.unwrap().is_loopback());
    let none = unit(&cli.container(&["run", "-d"], "none", &["--network", "none"], &[]).await);
    let how = reached(&provider, &none).await;
    let pid = cli.inspect(&none.name, "{{.State.Pid}}").await;
    let Some((Spot::Inside(process, 80), true)) = how.dial(80) else { panic!("{how:?}") };
    assert_eq!((how.address, process.pid.to_string()), (None, pid));
}

#[tokio::test]
async fn a_published_port_is_dialled_on_this_machine() {
    let Some((cli, provider)) = engine() else { return };
    let unit = unit(&cli.container(&["run", "-d"], "app", &["-p", "127.0.0.1::80"], &[]).await);
    let published = reached(&provider, &unit).await.published[&80];
    let told = cli.run(&["port", &unit.name, "80"]).await;
    assert_eq!(published.to_string(), told);
}

#[tokio::test]
async fn labels_health_and_names_are_listed() {
    let Some((cli, provider)) = engine() else { return };
    let options = ["--label", "dormouse.port=80", "--health-cmd", "/app --exit-code 0", "--expose", "80"];
    let name = cli.container(&["create"], "app", &options, &[]).await;
    let listed = provider.list().await.unwrap();
    let found = listed.iter().find(|container| container.name == name).expect("it is listed");
    assert_eq!(found.labels["dormouse.port"], "80");
    assert!(found.has_health_check);
    assert_eq!(found.ports.len(), 1);
    assert!(stopped(&found.state));
}

#[tokio::test]
async fn an_address_moves_to_another_container() {
    let Some((cli, provider)) = engine() else { return };
    let first = unit(&cli.container(&["run", "-d"], "first", &[], &[]).await);
    let before = reached(&provider, &first).await.address;
    provider.stop(&first, StopOrder { method: SleepMethod::Kill, ..STOP }).await.unwrap();
    let options = ["--label", "x=y"];
    let second = unit(&cli.container(&["run", "-d"], "second", &options, &[]).await);
    provider.start(&first).await.unwrap();
    let (now, other) = (reached(&provider, &first).await.address, reached(&provider, &second).await.address);
    assert!(now.is_some() && now != other, "{before:?} {now:?} {other:?}");
}

#[tokio::test]
async fn events_name_the_container_and_leave_out_what_changes_nothing() {
    let Some((cli, provider)) = engine() else { return };
    let name = cli.container(&["create"], "app", &[], &[]).await;
    let mut events = provider.events();
    assert_eq!(must("the first hint", events.next()).await, Some(Hint::All));
    cli.run(&["start", &name]).await;
    cli.run(&["exec", &name, "/app", "--exit-code", "0"]).await;
    cli.run(&["pause", &name]).await;
    cli.run(&["unpause", &name]).await;
    cli.run(&["kill", &name]).await;
    let other = cli.name("other");
    cli.run(&["rename", &name, &other]).await;
    let mut seen = Vec::new();
    let collect = async {
        while let Some(hint) = events.next().await {
            match hint {
                Hint::Unit { name: of, what } if of == name || of == other => {
                    seen.push(format!("{} {what}", if of == name { "app" } else { "other" }));
                    if seen.iter().filter(|seen| seen.ends_with("rename")).count() == 2 {
                        return;
                    }
                }
                Hint::Unit { .. } | Hint::Ended { .. } | Hint::All | Hint::Away(_) => {}
            }
        }
    };
    must("the rename", collect).await;
    let expected = ["app start", "app pause", "app unpause", "app kill", "app die", "other rename", "app rename"];
    assert_eq!(seen, expected);
}
