use tokio::sync::mpsc;
use tonic::Code;

use super::*;

const WITHIN: Duration = Duration::from_millis(100);

/// Frames as a test sends them.
struct Sent(mpsc::UnboundedReceiver<Bytes>);

impl Body for Sent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.poll_recv(context).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

fn body(
    messages: Messages,
    intake: &Arc<Intake>,
) -> (mpsc::UnboundedSender<Bytes>, Measured<Sent>) {
    let (sender, sent) = mpsc::unbounded_channel();
    (sender, Measured::new(Sent(sent), messages, intake))
}

/// A message of so many bytes.
fn message(n_bytes: usize) -> Vec<u8> {
    let length = u32::try_from(n_bytes).unwrap().to_be_bytes();
    [&[0][..], &length, &vec![7; n_bytes]].concat()
}

async fn next(body: &mut Measured<Sent>) -> Option<Result<usize, Status>> {
    let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
    frame.map(|frame| frame.map(|frame| frame.into_data().unwrap().len()))
}

#[tokio::test]
async fn a_message_counts_until_the_next_one_begins() {
    let intake = Intake::new(1 << 20, WITHIN);
    let (sender, mut body) = body(Messages::Stream, &intake);
    let all = [message(10), message(0), message(3000), message(20)].concat();
    for piece in all.chunks(7) {
        sender.send(Bytes::copy_from_slice(piece)).unwrap();
        next(&mut body).await.unwrap().unwrap();
        assert!(intake.count().held_bytes <= 3005);
    }
    assert_eq!(intake.count().held_bytes, 25);
    // Several in one frame: only the last is held, the others are decoded at once.
    sender.send(Bytes::from(all)).unwrap();
    next(&mut body).await.unwrap().unwrap();
    assert_eq!(intake.count().held_bytes, 25);
    drop(body);
    assert_eq!(intake.count().held_bytes, 0);
}

#[tokio::test]
async fn large_messages_are_refused_before_small_ones() {
    let intake = Intake::new(1 << 20, WITHIN);
    let mut bodies = Vec::new();
    let mut n_refused = 0;
    for _ in 0..20 {
        let (sender, mut body) = body(Messages::One, &intake);
        // Never complete.
        sender.send(message(200 << 10)[..100 << 10].to_vec().into()).unwrap();
        match next(&mut body).await.unwrap() {
            Ok(_) => bodies.push((sender, body)),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted);
                n_refused += 1;
            }
        }
    }
    assert_eq!((bodies.len(), n_refused), (10, 10));
    for _ in 0..100 {
        let (sender, mut body) = body(Messages::One, &intake);
        sender.send(message(100).into()).unwrap();
        next(&mut body).await.unwrap().unwrap();
    }
    assert_eq!(intake.count().refused, 10);
}

#[tokio::test]
async fn a_message_that_is_not_complete_in_time_is_given_up() {
    let intake = Intake::new(1 << 20, WITHIN);
    // A unary call whose message is there, and whose end is not.
    let (sender, mut unary) = body(Messages::One, &intake);
    sender.send(message(10).into()).unwrap();
    next(&mut unary).await.unwrap().unwrap();
    let began = Instant::now();
    let status = next(&mut unary).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(began.elapsed() >= WITHIN / 2);
    // A stream may rest between its messages for as long as it likes, and not within one.
    let (sender, mut stream) = body(Messages::Stream, &intake);
    for _ in 0..3 {
        sender.send(message(10).into()).unwrap();
        next(&mut stream).await.unwrap().unwrap();
        tokio::time::timeout(WITHIN * 2, next(&mut stream)).await.unwrap_err();
    }
    sender.send(message(10)[..9].to_vec().into()).unwrap();
    next(&mut stream).await.unwrap().unwrap();
    assert_eq!(next(&mut stream).await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(intake.count().overdue, 2);
}

#[tokio::test]
async fn a_message_is_collected_whole_and_one_that_is_too_large_is_refused_early() {
    let intake = Intake::new(1 << 20, WITHIN);
    for step in [1, 100, 5000] {
        let (sender, body) = body(Messages::One, &intake);
        for piece in message(3000).chunks(step) {
            sender.send(Bytes::copy_from_slice(piece)).unwrap();
        }
        drop(sender);
        let (bytes, measure) = body.collect(3000).await.unwrap();
        assert_eq!(bytes, message(3000));
        assert_eq!(intake.count().held_bytes, 3005);
        drop(measure);
        assert_eq!(intake.count().held_bytes, 0);
    }
    let (sender, body) = body(Messages::One, &intake);
    sender.send(message(3001)[..5].to_vec().into()).unwrap();
    let status = body.collect(3000).await.err().unwrap();
    assert_eq!(status.message(), "the request has 3001 bytes, the limit is 3000");
}
