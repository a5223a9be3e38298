// The receiver that the provider's documents sketch: reads the body, logs it, answers 200. It forgets everything when it
// ends. Repeats are dropped by a set of ids, as the documents advise. The download that their sketch begins at once is
// left out: here it would open a socket and a file for every callback.
import express from "express";

const seen = new Set();
const app = express();
app.use(express.json());

app.post("/callbacks/kie", (request, response) => {
  const { code, msg, data } = request.body;
  if (!seen.has(data.taskId)) {
    seen.add(data.taskId);
    if (code === 200) {
      console.log("succeeded:", data.taskId, data.info.resultUrls);
    } else {
      console.log("failed:", data.taskId, msg);
    }
  }
  response.status(200).json({ code: 200, msg: "success" });
});

app.listen(process.env.PORT, "127.0.0.1");
