import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { generate, loadDecoder } from '@lowbit/model'
import {
  LONG_PROMPT,
  NEW_TOKENS,
  promptTokens,
  SHORT_PROMPT,
  serve,
  stopwatch,
} from './protocol.ts'

await serve(async ({ model, threads }) => {
  const kernels = await cpu({ threads, strict: false, wide: true })
  const checkpoint = await openFolder(nodeFolder(model))
  const decoder = await loadDecoder(checkpoint, kernels, { activations: 'int8' })
  await generate(decoder, promptTokens(SHORT_PROMPT), { maxTokens: 1 })
  return {
    async decode() {
      const watch = stopwatch()
      let made = 0
      const { tokens } = await generate(decoder, promptTokens(SHORT_PROMPT), {
        maxTokens: NEW_TOKENS + 1,
        onToken: () => {
          if (made++ === 0) watch.begin()
        },
      })
      return { ...watch.usage(), tokens: NEW_TOKENS, text: tokens.slice(0, 6).join(' ') }
    },
    async prompt() {
      const watch = stopwatch()
      await generate(decoder, promptTokens(LONG_PROMPT), { maxTokens: 1 })
      return { ...watch.usage(), tokens: LONG_PROMPT }
    },
  }
})
