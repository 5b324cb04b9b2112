/** onnxruntime-node with a greedy loop of its own: what transformers.js stands on, without its overhead. */

import path from 'node:path'
import { loadOrt, type OrtTensor, sessionOptions } from '../onnx/runtime.ts'
import {
  LONG_PROMPT,
  NEW_TOKENS,
  promptTokens,
  SHORT_PROMPT,
  serve,
  stopwatch,
} from './protocol.ts'

/** SmolLM2-135M. */
const [LAYERS, KEY_HEADS, HEAD_SIZE] = [30, 3, 64]

type Cache = Record<string, OrtTensor>

await serve(async ({ model, threads }) => {
  const ort = await loadOrt()
  const file = path.join(model, 'onnx/model_q4.onnx')
  const session = await ort.InferenceSession.create(file, sessionOptions(threads))
  const names = Array.from({ length: LAYERS }, (_, i) => [`${i}.key`, `${i}.value`]).flat()
  const integers = (values: readonly number[]) =>
    new ort.Tensor('int64', BigInt64Array.from(values, BigInt), [1, values.length])

  function empty(): Cache {
    const shape = [1, KEY_HEADS, 0, HEAD_SIZE]
    const nothing = () => new ort.Tensor('float32', new Float32Array(0), shape)
    return Object.fromEntries(names.map((name) => [`past_key_values.${name}`, nothing()]))
  }

  async function step(tokens: readonly number[], cache: Cache, total: number) {
    const out = await session.run({
      input_ids: integers(tokens),
      attention_mask: integers(new Array(total).fill(1)),
      ...cache,
    })
    const next = names.map((name) => [`past_key_values.${name}`, out[`present.${name}`]])
    const logits = out.logits.data
    let best = 0
    for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i
    return { token: best, cache: Object.fromEntries(next) as Cache }
  }

  await step(promptTokens(SHORT_PROMPT), empty(), SHORT_PROMPT)
  return {
    async decode() {
      let { token, cache } = await step(promptTokens(SHORT_PROMPT), empty(), SHORT_PROMPT)
      const made = [token]
      const watch = stopwatch()
      for (let i = 1; i <= NEW_TOKENS; i++) {
        ;({ token, cache } = await step([token], cache, SHORT_PROMPT + i))
        made.push(token)
      }
      return { ...watch.usage(), tokens: NEW_TOKENS, text: made.slice(0, 6).join(' ') }
    },
    async prompt() {
      const watch = stopwatch()
      await step(promptTokens(LONG_PROMPT), empty(), LONG_PROMPT)
      return { ...watch.usage(), tokens: LONG_PROMPT }
    },
  }
})
