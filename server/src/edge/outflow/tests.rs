use http_body_util::{BodyExt, Full};

use super::*;

const MIB: u64 = 1 << 20;

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(50)
}

fn body(n_bytes: usize) -> Body {
    Body::new(Full::new(Bytes::from(vec![7; n_bytes])))
}

#[tokio::test]
async fn large_answers_share_the_room_and_small_ones_need_none() {
    let outflow = Outflow::new(4 * MIB);
    let first = outflow.hold(3 * MIB, soon()).await.unwrap().unwrap();
    assert_eq!(outflow.count().held_bytes, 3 * MIB);
    let refused = outflow.hold(2 * MIB, soon()).await.unwrap_err();
    assert!(refused.to_string().contains("4194304"), "{refused}");
    assert!(outflow.hold(100, soon()).await.unwrap().is_none());
    drop(first);
    // One that is too large for the room has it for itself.
    let all = outflow.hold(MIB << 10, soon()).await.unwrap().unwrap();
    assert_eq!(
        outflow.count(),
        OutflowCount { held_bytes: 4 * MIB, bytes_max: 4 * MIB, refused: 1, unread: 0 }
    );
    let fitting = all.fit(MIB).unwrap();
    assert_eq!(outflow.count().held_bytes, MIB);
    assert!(fitting.fit(100).is_none());
    assert_eq!(outflow.count().held_bytes, 0);
}

#[tokio::test]
async fn an_answer_passes_unchanged_in_pieces_and_gives_its_room_back() {
    let outflow = Outflow::new(4 * MIB);
    let room = outflow.hold(MIB, soon()).await.unwrap().unwrap();
    let mut kept = Arc::new(room).keep(body(200_000), &Arc::new(Notify::new()));
    let mut pieces = Vec::new();
    while let Some(frame) = kept.frame().await {
        pieces.push(frame.unwrap().into_data().unwrap());
    }
    assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [65536, 65536, 65536, 3392]);
    assert!(pieces.concat().iter().all(|byte| *byte == 7));
    assert_eq!(outflow.count().held_bytes, MIB, "until the transport lets go of the body");
    drop(kept);
    assert_eq!(outflow.count().held_bytes, 0);
}

#[tokio::test]
async fn an_answer_that_nobody_takes_gives_way_only_while_others_wait() {
    let outflow = Outflow::with(MIB, Duration::from_millis(20));
    let room = outflow.hold(MIB, soon()).await.unwrap().unwrap();
    let give_way = Arc::new(Notify::new());
    let kept = Arc::new(room).keep(body(200_000), &give_way);
    let told = tokio::time::timeout(Duration::from_millis(200), give_way.notified()).await;
    assert!(told.is_err(), "nobody waited");
    let waiting = tokio::spawn({
        let outflow = Arc::clone(&outflow);
        async move { outflow.hold(MIB, Instant::now() + Duration::from_secs(60)).await }
    });
    give_way.notified().await;
    assert_eq!(outflow.count().unread, 1);
    // Its connection ends.
    drop(kept);
    assert!(waiting.await.unwrap().unwrap().is_some());
}

#[tokio::test]
async fn an_answer_that_is_taken_slowly_keeps_its_room() {
    let outflow = Outflow::with(MIB, Duration::from_secs(2));
    let room = outflow.hold(MIB, soon()).await.unwrap().unwrap();
    let give_way = Arc::new(Notify::new());
    let mut kept = Arc::new(room).keep(body(20 << 16), &give_way);
    let waiting = outflow.hold(MIB, Instant::now() + Duration::from_secs(60));
    let slowly = async {
        while kept.frame().await.is_some() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        drop(kept);
    };
    let (held, ()) = tokio::join!(waiting, slowly);
    assert!(held.unwrap().is_some());
    assert_eq!(outflow.count().unread, 0);
}
