// The Webcam tab. Gradio may render the template anew, so elements are looked up when they are needed.
const find = (name) => element.querySelector('.' + name);
const CONNECT_MS = 12000;
const REPORT_MS = 500;
let camera = null, connection = null, timer = null, server_figures = null;

function say(text) { find('message').textContent = text; }

function stop(text = '') {
  clearInterval(timer);
  if (connection) connection.close();
  if (camera) camera.getTracks().forEach((track) => track.stop());
  camera = connection = server_figures = null;
  find('after').srcObject = find('before').srcObject = null;
  find('start').disabled = false;
  find('stop').disabled = true;
  find('figures').textContent = '';
  find('stage').classList.remove('live');
  say(text);
}

async function open_camera() {
  if (!window.isSecureContext || !navigator.mediaDevices)
    throw new Error('Browsers give a page the camera only over https, or from this very computer.');
  try {
    const size = { width: 640, height: 480, frameRate: { ideal: 30 } };
    return await navigator.mediaDevices.getUserMedia({ video: size, audio: false });
  } catch (error) {
    const known = {
      NotAllowedError: 'The browser may not use the camera. Allow it in the address bar and start again.',
      NotFoundError: 'No camera was found.',
      NotReadableError: 'The camera is busy: another program has it.',
    };
    throw new Error(known[error.name] || `The camera can't be used (${error.message}).`);
  }
}

function gathered(peer) {
  return new Promise((resolve) => {
    const check = () => peer.iceGatheringState === 'complete' && resolve();
    peer.addEventListener('icegatheringstatechange', check);
    setTimeout(resolve, 3000);
    check();
  });
}

async function start() {
  say('');
  find('start').disabled = true;
  try {
    camera = await open_camera();
    find('before').srcObject = camera;
    const peer = connection = new RTCPeerConnection({ iceServers: [] });
    const channel = peer.createDataChannel('figures');
    channel.onmessage = (event) => heard(JSON.parse(event.data));
    peer.ontrack = (event) => {
      event.receiver.jitterBufferTarget = 0; // the newest frame, not the smoothest pace
      find('after').srcObject = new MediaStream([event.track]);
    };
    peer.onconnectionstatechange = () => {
      if (peer !== connection) return;
      if (peer.connectionState === 'connected') find('stage').classList.add('live');
      if (['failed', 'disconnected'].includes(peer.connectionState)) stop('The connection was lost.');
    };
    for (const track of camera.getVideoTracks()) peer.addTrack(track, camera);
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    const answer = await server.offer({ session: props.session, sdp: peer.localDescription.sdp });
    if (peer !== connection) return;
    if (answer.error) throw new Error(answer.error);
    await peer.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
    find('stop').disabled = false;
    timer = setInterval(() => show_figures(peer), REPORT_MS);
    setTimeout(() => {
      if (peer === connection && peer.connectionState !== 'connected')
        stop('Browser and server do not reach each other directly (UDP), as live video needs.');
    }, CONNECT_MS);
  } catch (error) {
    stop(error.message);
  }
}

function heard(message) {
  if (message.error !== undefined) stop(message.error);
  else server_figures = message;
}

// Capture to display, as far as a browser knows: its encoder, the way there and back, the server, its
// buffer against jitter, its decoder. Means over the time since the last look.
let before = {};
async function show_figures(peer) {
  const now = {};
  (await peer.getStats()).forEach((report) => {
    if (report.type === 'outbound-rtp') now.out = report;
    if (report.type === 'inbound-rtp') now.in = report;
    if (report.type === 'candidate-pair' && report.nominated) now.pair = report;
  });
  const mean = (kind, total, count) => {
    const a = before[kind] || {}, b = now[kind] || {};
    const counted = (b[count] || 0) - (a[count] || 0);
    return counted > 0 ? ((b[total] || 0) - (a[total] || 0)) / counted * 1000 : 0;
  };
  const parts = {
    encode: mean('out', 'totalEncodeTime', 'framesEncoded'),
    way: ((now.pair || {}).currentRoundTripTime || 0) * 1000,
    buffer: mean('in', 'jitterBufferDelay', 'jitterBufferEmittedCount'),
    decode: mean('in', 'totalDecodeTime', 'framesDecoded'),
  };
  const elapsed = before.in && now.in ? (now.in.timestamp - before.in.timestamp) / 1000 : 0;
  const fps = elapsed ? (now.in.framesDecoded - before.in.framesDecoded) / elapsed : 0;
  before = now;
  if (!server_figures || !elapsed || peer !== connection) return;
  const latency = Object.values(parts).reduce((a, b) => a + b, server_figures.server_ms);
  find('figures').textContent =
    `${fps.toFixed(0)} frames per second, ${latency.toFixed(0)} ms behind, ${server_figures.dropped} dropped`;
  Object.assign(find('figures').dataset, { fps: fps.toFixed(2), latency: latency.toFixed(1),
    server: server_figures.server_ms.toFixed(1), ...Object.fromEntries(
      Object.entries(parts).map(([name, value]) => [name, value.toFixed(1)])) });
}

element.addEventListener('click', (event) => {
  if (event.target.closest('.start')) start();
  if (event.target.closest('.stop')) stop();
});
window.addEventListener('pagehide', () => connection && connection.close());
