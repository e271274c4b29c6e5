# %% [markdown]
# # Numbers and pictures
# The reference is twelve crystals of another seed here; `"perov_5:test"` once the data set is prepared.

# %%
import dpcdvae

model = dpcdvae.load_model("perov-5-compact")
crystals = dpcdvae.generate(model, 6, steps=5)
others = dpcdvae.generate(model, 12, seed=1, steps=5)

# %% Every number has its interval and the number of crystals behind it.
report = dpcdvae.evaluate(crystals, others.crystals, baselines=(), workers=0)
number = report["structural_validity"]
print(number.value, number.interval, number.n)

# %% A page for the browser, and a picture.
dpcdvae.view(crystals, "page.html", report=report, workers=0)
dpcdvae.draw(crystals, "crystals.png")
