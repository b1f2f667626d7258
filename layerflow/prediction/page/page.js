// What a person sees of the model. Texts from the server are set as text, never as HTML.
const $ = (id) => document.getElementById(id);
let shown = 0; // the number of the last picture: an answer to an earlier one comes too late
let version = null;
let address = null; // of the picture that is shown
let gone = null; // what was said when the server didn't answer

function say(text, isError = false) {
  $("message").textContent = text;
  $("message").className = isError ? "error" : "";
  $("message").hidden = !text;
}

async function asked(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server doesn't answer. See whether layerflow try still runs.");
  }
  const told = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(told.error ?? `The server answers with status ${response.status}.`);
  return told;
}

async function showModel() {
  const model = await asked("/model");
  version = model.version;
  $("title").textContent = `${model.name}, version ${model.version}`;
  $("facts").replaceChildren(...Object.entries(model.facts).map(([name, value]) => {
    const pair = document.createElement("div");
    pair.append(Object.assign(document.createElement("dt"), { textContent: name }));
    pair.append(Object.assign(document.createElement("dd"), { textContent: value }));
    return pair;
  }));
  $("size").textContent = `${model.width} × ${model.height} pixels`;
  $("rest").textContent = `TensorFlow Serving's REST API: ${location.origin}/v1/models/${model.name}:predict`;
}

function rowOf({ class: name, probability }) {
  const row = document.createElement("tr");
  const bar = Object.assign(document.createElement("span"), { className: "bar" });
  bar.style.width = `${100 * probability}%`;
  const number = Object.assign(document.createElement("span"), { className: "number" });
  number.textContent = `${(100 * probability).toFixed(1)} %`;
  const cell = document.createElement("td");
  cell.append(bar, number);
  row.append(Object.assign(document.createElement("th"), { scope: "row", textContent: name }), cell);
  return row;
}

async function ask(file, name) {
  const mine = ++shown;
  $("result").setAttribute("aria-busy", "true");
  say("Asking the model…");
  try {
    const answer = await asked("/answer", { method: "POST", body: file });
    if (mine !== shown) return;
    URL.revokeObjectURL(address);
    address = URL.createObjectURL(file);
    $("given").src = address;
    $("name").textContent = name;
    $("top").replaceChildren(...answer.top.map(rowOf));
    $("seen").src = answer.seen;
    $("places").src = answer.places ?? "";
    $("look").hidden = $("places").hidden = !answer.places;
    $("places").hidden ||= !$("overlay").checked;
    $("no-places").hidden = Boolean(answer.places);
    $("no-places").textContent = answer.no_places ?? "";
    $("accepted").hidden = answer.accepted === null;
    $("accepted").textContent = answer.accepted
      ? "Accepted: the probability reaches the model's threshold."
      : "Not accepted: the probability is below the model's threshold.";
    $("answer").hidden = false;
    say("");
    if (answer.version !== version) keepModel();
  } catch (error) {
    if (mine !== shown) return;
    $("answer").hidden = true;
    say(error.message, true);
  } finally {
    if (mine === shown) $("result").setAttribute("aria-busy", "false");
  }
}

function askFirst(files) {
  const picture = [...files].find((file) => file.type.startsWith("image/")) ?? files[0];
  if (picture) ask(picture, picture.name);
}

$("file").addEventListener("change", (event) => {
  askFirst(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
addEventListener("dragleave", () => $("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  askFirst(event.dataTransfer.files);
});
addEventListener("paste", (event) => askFirst(event.clipboardData.files));
$("overlay").addEventListener("change", () => {
  $("places").hidden = !$("overlay").checked;
});

function endCamera() {
  $("video").srcObject?.getTracks().forEach((track) => track.stop());
  $("video").srcObject = null;
  $("video").hidden = $("take").hidden = true;
  $("camera").textContent = "Use the camera";
}

$("camera").hidden = !navigator.mediaDevices?.getUserMedia;
$("camera").addEventListener("click", async () => {
  if ($("video").srcObject) {
    endCamera();
    return;
  }
  try {
    $("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    say(`The camera can't be used: ${error.message}.`, true);
    return;
  }
  $("video").hidden = false;
  $("camera").textContent = "Close the camera";
  $("video").play();
});
$("video").addEventListener("loadeddata", () => {
  $("take").hidden = false;
  $("take").focus();
});
$("take").addEventListener("click", () => {
  const { videoWidth: width, videoHeight: height } = $("video");
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage($("video"), 0, 0);
  endCamera();
  canvas.toBlob((picture) => ask(picture, "From the camera"), "image/png");
});

async function keepModel() {
  try {
    await showModel();
    if ($("message").textContent === gone) say("");
  } catch (error) {
    gone = error.message;
    say(gone, true);
  }
}
keepModel();
setInterval(keepModel, 10_000);
