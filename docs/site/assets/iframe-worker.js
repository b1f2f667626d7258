// A browser starts no worker from a file. There, the search runs in a hidden frame, and messages go through a channel.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(address) {
      const { port1: ours, port2: theirs } = new MessageChannel();
      ours.onmessage = (event) => this.onmessage?.(event);
      this.ours = ours;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.addEventListener("load", () => {
        const inside = this.frame.contentWindow;
        inside.postMessage = (data) => theirs.postMessage(data);
        const script = inside.document.createElement("script");
        script.src = address;
        script.onload = () => {
          theirs.onmessage = (event) => inside.onmessage?.(event); // what came before has waited in the channel
        };
        inside.document.body.append(script);
      });
      document.body.append(this.frame);
    }

    postMessage(data) {
      this.ours.postMessage(data);
    }

    terminate() {
      this.frame.remove();
    }
  };
}
