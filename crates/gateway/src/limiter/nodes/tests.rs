//! Nodes that share a server, and what they do without it.

use super::*;
use crate::limiter::tests::{COST, asking, limit};
use domain::rate::{Dimension, Limit, Metric};
use fixtures::Redis;

const AT: Timestamp = Timestamp(1_795_334_400_000);
const PATIENCE: Duration = Duration::from_secs(20);

async fn node(server: &Redis, limits: &[Arc<Limit>]) -> Arc<Limiter> {
    let limiter = Limiter::over_redis(&[7; 32], Remote::connect(&server.url()).unwrap());
    limiter.set_limits(limits);
    limiter
}

async fn enter(node: &Arc<Limiter>) -> Result<Entered, Limited> {
    node.admit(&asking(1, 1), &Zone::UTC, &COST, AT).await
}

/// How many of so many are admitted.
async fn admitted(node: &Arc<Limiter>, asked: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..asked {
        if let Ok(entered) = enter(node).await {
            entered.settle(&COST, AT);
            admitted += 1;
        }
    }
    admitted
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let found = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while !is_so().await {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

/// Every node has told the server that it is there.
async fn until_seen(nodes: &[Arc<Limiter>]) {
    for node in nodes {
        let over = node.nodes.as_ref().unwrap();
        until("all nodes are seen", async || {
            over.look_after().await.unwrap();
            over.seen.load(Ordering::Relaxed) == nodes.len() as u64
        })
        .await;
    }
}

fn per_hour(amount: u64) -> Arc<Limit> {
    limit("rph", Metric::Requests, amount, "hour", &[Dimension::Account])
}

#[tokio::test]
async fn l_01_l_20_two_nodes_admit_no_more_than_there_is() {
    let server = Redis::start().unwrap();
    let limits = [per_hour(200), limit("open", Metric::InFlight, 4, "now", &[Dimension::Key])];
    let nodes = [node(&server, &limits).await, node(&server, &limits).await];
    let mut askers = tokio::task::JoinSet::new();
    for asker in 0..8 {
        let node = nodes[asker % 2].clone();
        askers.spawn(async move { admitted(&node, 80).await });
    }
    let total: usize = askers.join_all().await.into_iter().sum();
    // Some were refused because four others were under way.
    assert!(total <= 200, "{total}");
    assert!(nodes.iter().all(|node| !node.is_alone()));
    let mut rest = 0;
    until("all is used", async || {
        rest += admitted(&nodes[rest % 2], 1).await;
        total + rest >= 200
    })
    .await;
    assert_eq!(admitted(&nodes[0], 5).await + admitted(&nodes[1], 5).await, 0);
    let refused = enter(&nodes[0]).await.unwrap_err();
    assert_eq!((&*refused.limit.name, refused.standing.remaining), ("rph", 0));
    assert!(refused.wait.is_some_and(|wait| wait <= Duration::from_hours(1)));
}

#[tokio::test]
async fn l_12_killed_and_restarted_the_server_costs_no_more_than_the_stated_slack() {
    let server = Redis::start().unwrap();
    let limits = [per_hour(100)];
    let nodes = [node(&server, &limits).await, node(&server, &limits).await];
    until_seen(&nodes).await;
    let mut total = admitted(&nodes[0], 60).await;
    assert_eq!(total, 60);
    server.stop().unwrap();
    // Without the server each has its half: the first has used more than that, the other nothing.
    let alone = [admitted(&nodes[0], 150).await, admitted(&nodes[1], 150).await];
    assert_eq!(alone, [0, 50]);
    let refused = enter(&nodes[0]).await.unwrap_err();
    assert!(nodes[0].is_alone() && refused.wait.is_some());
    total += 50;
    server.resume().unwrap();
    until("both are back", async || nodes.iter().all(|node| !node.is_alone())).await;
    // The server lost what it knew, and was told what it missed.
    let after = admitted(&nodes[0], 100).await + admitted(&nodes[1], 100).await;
    assert_eq!(after, 50);
    total += after;
    assert!(total <= 200, "{total}: twice the amount is stated");
}

#[tokio::test]
async fn l_12_a_server_that_was_only_silent_knows_everything_on_its_return() {
    let server = Redis::start().unwrap();
    let node = node(&server, &[per_hour(100)]).await;
    until_seen(std::slice::from_ref(&node)).await;
    assert_eq!(admitted(&node, 60).await, 60);
    server.pause().unwrap();
    let alone = admitted(&node, 30).await;
    assert!(node.is_alone() && alone == 30);
    server.go_on().unwrap();
    until("it is back", async || !node.is_alone()).await;
    // The one that got no answer may have been counted twice.
    let after = admitted(&node, 50).await;
    assert!((9..=10).contains(&after), "{after}");
}

/// Has a server that goes on running forget everything.
async fn flush(server: &Redis) {
    let client = ::redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    ::redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
}

#[tokio::test]
async fn l_12_a_server_that_was_emptied_while_it_ran_gives_no_node_a_second_amount() {
    let server = Redis::start().unwrap();
    let limits = [per_hour(100), limit("open", Metric::InFlight, 3, "now", &[Dimension::Account])];
    let node = node(&server, &limits).await;
    until_seen(std::slice::from_ref(&node)).await;
    assert_eq!(admitted(&node, 60).await, 60);
    let open = [enter(&node).await.unwrap(), enter(&node).await.unwrap()];
    flush(&server).await;
    // The next one hears it. Alone, the node goes by what it noted, and so it does when the server decides again.
    let alone = enter(&node).await.unwrap();
    assert!(node.is_alone());
    until("it is back", async || !node.is_alone()).await;
    let refused = enter(&node).await.unwrap_err();
    assert_eq!(&*refused.limit.name, "open", "what was under way is known again");
    for entered in open.into_iter().chain([alone]) {
        entered.settle(&COST, AT);
    }
    let mut after = 0;
    until("the places are free", async || {
        after += admitted(&node, 1).await;
        after > 0
    })
    .await;
    after += admitted(&node, 100).await;
    assert_eq!(after, 37, "100 in all");
    // A beat hears it as well.
    flush(&server).await;
    node.nodes.as_ref().unwrap().look_after().await.unwrap();
    assert!(node.is_alone());
}

#[tokio::test]
async fn l_06_requests_under_way_are_counted_over_a_loss_of_the_server() {
    let server = Redis::start().unwrap();
    let node = node(&server, &[limit("open", Metric::InFlight, 3, "now", &[Dimension::Key])]).await;
    until_seen(std::slice::from_ref(&node)).await;
    let (first, second) = (enter(&node).await.unwrap(), enter(&node).await.unwrap());
    server.stop().unwrap();
    let third = enter(&node).await.unwrap();
    assert!(node.is_alone() && enter(&node).await.is_err());
    drop(first);
    let fourth = enter(&node).await.unwrap();
    server.resume().unwrap();
    until("it is back", async || !node.is_alone()).await;
    assert!(enter(&node).await.is_err());
    drop((second, third, fourth));
    let mut held = Vec::new();
    until("all places are free", async || {
        held.extend(enter(&node).await.ok());
        held.len() == 3
    })
    .await;
    assert!(enter(&node).await.is_err());
    // Who leaves while being decided about leaves no trace.
    drop(held);
    drop(tokio::time::timeout(Duration::ZERO, enter(&node)).await);
    let mut held = Vec::new();
    until("all places are free again", async || {
        held.extend(enter(&node).await.ok());
        held.len() == 3
    })
    .await;
}
