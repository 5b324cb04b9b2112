/** Decoded weights on tensor cores of a real GPU, as the emulated one has them: `npm run test:cuda`. */

import { describeDecoded } from './decoded.ts'

describeDecoded()
