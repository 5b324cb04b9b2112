import path from 'node:path'
import { importPeer } from '../peers.ts'
import {
  LONG_PROMPT,
  NEW_TOKENS,
  promptTokens,
  SHORT_PROMPT,
  serve,
  stopwatch,
} from './protocol.ts'

interface Ids {
  readonly data: BigInt64Array
}
interface Model {
  generate(options: object): Promise<Ids>
}
interface Transformers {
  readonly env: { allowRemoteModels: boolean; localModelPath: string }
  readonly Tensor: new (type: string, data: BigInt64Array, shape: readonly number[]) => Ids
  readonly AutoModelForCausalLM: {
    from_pretrained(name: string, options: object): Promise<Model>
  }
}

await serve(async ({ model: folder, threads }) => {
  const { env, Tensor, AutoModelForCausalLM } = await importPeer<Transformers>(
    '@huggingface/transformers',
    'dist/transformers.node.mjs',
  )
  env.allowRemoteModels = false
  env.localModelPath = `${path.dirname(folder)}/`
  const model = await AutoModelForCausalLM.from_pretrained(path.basename(folder), {
    dtype: 'q4',
    device: 'cpu',
    session_options: { intraOpNumThreads: threads, interOpNumThreads: 1 },
  })
  const generate = (tokens: number, more: number) =>
    model.generate({
      input_ids: new Tensor('int64', BigInt64Array.from(promptTokens(tokens), BigInt), [1, tokens]),
      attention_mask: new Tensor('int64', new BigInt64Array(tokens).fill(1n), [1, tokens]),
      max_new_tokens: more,
      min_new_tokens: more,
      do_sample: false,
    })
  await generate(SHORT_PROMPT, 1)
  return {
    async decode() {
      const first = stopwatch()
      await generate(SHORT_PROMPT, 1)
      const prompt = first.usage()
      const watch = stopwatch()
      const out = await generate(SHORT_PROMPT, NEW_TOKENS + 1)
      const { wall, cpu } = watch.usage()
      const text = Array.from(out.data)
        .slice(SHORT_PROMPT, SHORT_PROMPT + 6)
        .join(' ')
      return { wall: wall - prompt.wall, cpu: cpu - prompt.cpu, tokens: NEW_TOKENS, text }
    },
    async prompt() {
      const watch = stopwatch()
      await generate(LONG_PROMPT, 1)
      return { ...watch.usage(), tokens: LONG_PROMPT }
    },
  }
})
